"""Every option, declared once: default, help, bounds, search values."""
