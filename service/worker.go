package service

// signal tells a loop that there is something to do. Signals that come before
// it is received are one.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

// trigger sends the signal, from any goroutine, and never blocks.
func (c signal) trigger() {
	select {
	case c <- struct{}{}:
	default:
	}
}
