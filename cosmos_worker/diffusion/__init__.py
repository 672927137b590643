"""EDM: noise, preconditioning, conditioning, loss, samplers, as functions of a network callable."""
