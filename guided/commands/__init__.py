"""The commands of the command line, a file each: add(subparsers) says what a command takes, run(args) does it."""
