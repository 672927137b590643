"""The layouts of datasets: which folder is the root of one, and which clips it names."""
