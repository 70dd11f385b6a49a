"""`mlscale completion`: its help. The entry point is in `entry`."""

from mlscale.commands.command import OUTPUT, Action, Command, Word

COMMAND = Command(
    "print a shell script that completes commands, groups and keys",
    "inspect",
    (
        ('eval "$(mlscale completion bash)"', "in ~/.bashrc"),
        ('eval "$(mlscale completion zsh)"', "in ~/.zshrc, after compinit"),
        ("mlscale completion fish > ~/.config/fish/completions/mlscale.fish", "once"),
    ),
    {"": Action("print the script for a shell", (Word("shell", "bash, zsh or fish", "bash"),), (OUTPUT,))},
)
