"""Tables, statistics, analysis, figures and the HTML report of a results folder.

Everything here is a function of the files in a results folder (`otprune_lmms.results` has their
formats) and imports no torch.
"""
