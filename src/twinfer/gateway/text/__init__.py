"""Text on this side, token ids on the other: tokenizer, chat template, incremental detokenisation, stop strings."""
