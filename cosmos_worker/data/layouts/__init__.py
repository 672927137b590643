"""The layouts of datasets: the root folder of each, and the clips that its files name."""
