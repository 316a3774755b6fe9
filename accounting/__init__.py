"""What a run costs: time, samples and FLOP, each with a word on how it is known."""
