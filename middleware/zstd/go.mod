module github.com/polymq/polymq/middleware/zstd

go 1.26.0

require (
	github.com/klauspost/compress v1.20.4
	github.com/polymq/polymq v0.0.0
)

require golang.org/x/time v0.16.0 // indirect

replace github.com/polymq/polymq => ../..
