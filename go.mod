module github.com/everpoint/everpoint

go 1.26.8
