"""Models of fp16 and int8, made on the graph: engines such as TensorRT 11 take their precision from nowhere else."""
