"""`python -m worker.settings` prints the tables of settings; `--write FILE` puts them between that file's markers."""

from worker.markdown import table_command
from worker.settings.describe import settings_table

if __name__ == "__main__":
    table_command("python -m worker.settings", "settings", settings_table)
