"""What a worker drives: the engine contract, our own paged engine, and what may stand between its two halves."""
