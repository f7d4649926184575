package polymqtest

var Standing = standing
