"""The nouns of Whimbrel: resources, task files and worker reports. Nothing here decides, reads or writes."""
