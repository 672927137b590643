"""GPU and host memory of a training, computed before anything is allocated; imports no torch."""
