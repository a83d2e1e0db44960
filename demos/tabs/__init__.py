"""The tabs, a file each: NAME and WORDS, and build(shelf), which puts the tab into the page that is being made."""
