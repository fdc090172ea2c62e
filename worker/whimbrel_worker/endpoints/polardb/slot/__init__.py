"""What a way back makes on PolarDB's server, what it asks of that, and what it finds there. No change is read here."""
