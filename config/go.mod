module github.com/polymq/polymq/config

go 1.26.0

require (
	github.com/polymq/polymq v0.0.0
	go.yaml.in/yaml/v3 v3.0.6
	gopkg.in/ini.v1 v1.68.0
)

replace github.com/polymq/polymq => ../
