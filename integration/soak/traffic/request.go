package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// A request is
//
//	pattern 8 || how many bytes follow 4 || how many are wanted 4 || bytes, by the pattern
//
// and the end of the stream. The answer is the bytes wanted, by the pattern's complement, and its end. By HTTP only the answer's
// bytes are asked for: GET /PATTERN/BYTES.

const maxRequest = 64 << 10

// requestTimeout is far longer than TCP needs on a way that works, and shorter than it would repeat in vain.
const requestTimeout = 10 * time.Second

func runRequests(ctx context.Context, f *flow) {
	var wg sync.WaitGroup
	defer wg.Wait()
	// Those that wait in vain hold up the others no sooner than a dozen of them.
	slots := make(chan struct{}, 12)
	for f.next(ctx, f.pace.Request) {
		select {
		case slots <- struct{}{}:
		default:
			continue
		}
		wg.Go(func() {
			f.request()
			<-slots
		})
	}
}

// request is one question and its answer. It ends in order also when the flow does.
func (f *flow) request() {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	began, epoch := time.Now(), f.agent.calm.Load()
	ask := f.ask
	if f.agent.http != nil {
		ask = f.get
	}
	up, down := rand.IntN(maxRequest), rand.IntN(maxRequest)
	if rand.IntN(4) > 0 { // most are small
		up, down = up%600, down%6000
	}
	n, err := ask(ctx, up, down)
	count := &f.agent.count
	switch {
	case err == nil:
		f.succeeded(began)
		count.Requests.Add(1)
		count.RequestBytes.Add(uint64(n))
	case errors.Is(err, errWrong):
		f.find(WrongBytes, began, err)
	case errors.Is(err, errEnded) || errors.Is(err, syscall.ECONNRESET):
		f.find(Broken, began, err)
	case epoch.quiet() && epoch == f.agent.calm.Load():
		f.find(Refused, began, err)
	}
}

func (f *flow) ask(ctx context.Context, up, down int) (int, error) {
	c, err := f.agent.net.DialContext(ctx, "tcp", f.at(RequestPort))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	p := Pattern(rand.Uint64())
	b := make([]byte, 16+up, 16+max(up, down))
	binary.BigEndian.PutUint64(b, uint64(p))
	binary.BigEndian.PutUint32(b[8:], uint32(up))
	binary.BigEndian.PutUint32(b[12:], uint32(down))
	p.Fill(b[16:], 0)
	if _, err := c.Write(b); err != nil {
		return 0, fmt.Errorf("asking: %w", err)
	}
	if err := closeWrite(c); err != nil {
		return 0, fmt.Errorf("ending the question: %w", err)
	}
	return up + down, checkAnswer(c, ^p, down)
}

// errEnded is the root of errors about a stream whose end came too soon, as that of a process that ends does.
var errEnded = errors.New("the end of the stream")

// checkAnswer wants n bytes of p and the end from r.
func checkAnswer(r io.Reader, p Pattern, n int) error {
	b, err := io.ReadAll(io.LimitReader(r, int64(n)+1))
	if wrong := p.Check(b[:min(n, len(b))], 0); wrong != nil {
		return fmt.Errorf("%w: %w", errWrong, wrong)
	}
	switch {
	case err != nil:
		return fmt.Errorf("after %d of %d bytes: %w", len(b), n, err)
	case len(b) > n:
		return fmt.Errorf("%w: more than %d bytes", errWrong, n)
	case len(b) < n:
		return fmt.Errorf("%w after %d of %d bytes", errEnded, len(b), n)
	}
	return nil
}

func (f *flow) get(ctx context.Context, _, down int) (int, error) {
	p := Pattern(rand.Uint64())
	url := "http://" + f.at(HTTPPort) + "/" + strconv.FormatUint(uint64(p), 10) + "/" + strconv.Itoa(down)
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := f.agent.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, errors.New(resp.Status)
	}
	return down, checkAnswer(resp.Body, ^p, down)
}

// answer serves one request.
func answer(c net.Conn) error {
	c.SetDeadline(time.Now().Add(2 * requestTimeout))
	head := make([]byte, 16)
	if _, err := io.ReadFull(c, head); err != nil {
		return err
	}
	p, up, down := Pattern(binary.BigEndian.Uint64(head)), binary.BigEndian.Uint32(head[8:]), binary.BigEndian.Uint32(head[12:])
	if up > maxRequest || down > maxRequest {
		return fmt.Errorf("%w: a request of %d bytes for %d", errWrong, up, down)
	}
	if err := checkAnswer(c, p, int(up)); err != nil {
		return err
	}
	b := make([]byte, down)
	(^p).Fill(b, 0)
	_, err := c.Write(b)
	return err
}

// answerHTTP serves one request by HTTP.
func answerHTTP(w http.ResponseWriter, r *http.Request) {
	p, err := strconv.ParseUint(r.PathValue("pattern"), 10, 64)
	n, err2 := strconv.Atoi(r.PathValue("bytes"))
	if err != nil || err2 != nil || n < 0 || n > maxRequest {
		http.Error(w, "want /PATTERN/BYTES", http.StatusBadRequest)
		return
	}
	b := make([]byte, n)
	(^Pattern(p)).Fill(b, 0)
	w.Header().Set("Content-Length", strconv.Itoa(n))
	w.Write(b)
}
