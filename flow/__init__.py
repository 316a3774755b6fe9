"""Flow matching as mathematics: here a network is a callable and every random number comes in as an argument or from a counter."""
