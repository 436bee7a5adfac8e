"""`gongwei chaos`: a real line of separate processes, what a factory does to it, and whether it kept its promises."""
