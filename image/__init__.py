"""What the Dockerfile's stages run, by the base's own Python and its standard library alone. No part of the product."""
