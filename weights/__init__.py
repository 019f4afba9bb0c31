"""Weights and text that ship with minisink, installed as `minisink.weights`."""
