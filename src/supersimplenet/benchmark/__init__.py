"""Accuracy on whole data sets: runs of training and test, each in a process of its own, beside published figures."""
