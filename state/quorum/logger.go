package quorum

import (
	"fmt"
	"log/slog"
)

// logger lets the library speak in our log. What it says of elections is for who
// looks into it; a Panic of it ends the voter's run, see vote.
type logger struct{ log *slog.Logger }

func (l logger) Debug(v ...any)              { l.log.Debug("raft", "says", fmt.Sprint(v...)) }
func (l logger) Debugf(f string, v ...any)   { l.log.Debug("raft", "says", fmt.Sprintf(f, v...)) }
func (l logger) Info(v ...any)               { l.log.Debug("raft", "says", fmt.Sprint(v...)) }
func (l logger) Infof(f string, v ...any)    { l.log.Debug("raft", "says", fmt.Sprintf(f, v...)) }
func (l logger) Warning(v ...any)            { l.log.Warn("raft", "says", fmt.Sprint(v...)) }
func (l logger) Warningf(f string, v ...any) { l.log.Warn("raft", "says", fmt.Sprintf(f, v...)) }
func (l logger) Error(v ...any)              { l.log.Error("raft", "says", fmt.Sprint(v...)) }
func (l logger) Errorf(f string, v ...any)   { l.log.Error("raft", "says", fmt.Sprintf(f, v...)) }
func (l logger) Fatal(v ...any)              { panic(fmt.Sprint(v...)) }
func (l logger) Fatalf(f string, v ...any)   { panic(fmt.Sprintf(f, v...)) }
func (l logger) Panic(v ...any)              { panic(fmt.Sprint(v...)) }
func (l logger) Panicf(f string, v ...any)   { panic(fmt.Sprintf(f, v...)) }
