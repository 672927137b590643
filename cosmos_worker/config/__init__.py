"""The numbers and addresses that a stage is given, typed and validated; imports no torch."""
