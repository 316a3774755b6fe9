"""Trains the arms of a question under the same seeds at equal cost, and says what can be believed of the differences."""
