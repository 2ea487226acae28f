"""What keeps patients out of a dataset: keyed hashes, hidden names, masked sentences, the list of what a header may give."""
