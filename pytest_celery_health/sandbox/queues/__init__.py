"""Messages in a broker of ours: made, put, held, taken and cleared away."""
