"""Load on any OpenAI or Bedrock endpoint, ours or not, measured from the client's side."""
