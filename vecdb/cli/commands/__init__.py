"""One file for each family of commands: functions whose parameters typer makes into arguments and options."""
