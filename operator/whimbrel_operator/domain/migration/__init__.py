"""The life of a Migration: its phases, tasks, figures, status and events. Its cutover stands in cutover."""
