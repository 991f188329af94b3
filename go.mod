module github.com/adit-overlay/adit

go 1.26.3
