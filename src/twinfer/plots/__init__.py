"""Pages that need nothing but themselves: plots as SVG, and the frame around them."""
