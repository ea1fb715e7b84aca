"""How good a credit is; how near unlearning is to retraining."""
