"""Who a process is to its peers: certificates of a private authority, and the roles written into them."""
