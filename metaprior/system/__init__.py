"""What touches the machine: devices, signals, files and folders, compiled programs, the terminal."""
