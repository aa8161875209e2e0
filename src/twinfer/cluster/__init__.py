"""Who is alive: the plan of a local deployment, and the supervisor that keeps it so."""
