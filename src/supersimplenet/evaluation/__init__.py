"""How good a detector is: metrics on arrays, and the evaluation of a model on a data set."""
