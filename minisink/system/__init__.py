"""What has nothing to do with attention: devices, files, errors, interrupts, resources, the terminal, pictures."""
