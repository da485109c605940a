package features

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/kedge-ml/kedge/internal/telemetry"
)

// noteScript records what the store holds. A record of servers that are no more
// is thrown away. Positions only grow: everything before one is in the store.
//
//	KEYS[1] the record · ARGV[1] run ids · then members and values
const noteScript = `
if redis.call('HGET', KEYS[1], 'nodes') ~= ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'nodes', ARGV[1])
end
for i = 2, #ARGV, 2 do
  local old = redis.call('HGET', KEYS[1], ARGV[i])
  if not old or string.sub(ARGV[i], 1, 5) == 'view:' or ARGV[i+1] > old then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i+1])
  end
end
return 1`

// held is what a shared store holds: of which views every stored row, with the
// ttl (µs, 0: none) that they were written under, and up to which offset what
// the log has. Nothing, where rows are in memory.
type held struct {
	views map[uint64]int64
	next  map[string]int64 // by topic/partition
}

func (s *SharedStore) recordKey() string { return s.cfg.Prefix + ":{state}" }

// open finds the servers and what they hold.
func (s *SharedStore) open(ctx context.Context) (held, error) {
	ids, err := s.runIDs(ctx)
	if err != nil {
		return held{}, err
	}
	s.nodes = ids
	c, err := s.connect()
	if err != nil {
		return held{}, err
	}
	record, err := c.Do(ctx, c.B().Hgetall().Key(s.recordKey()).Build()).AsStrMap()
	if err != nil {
		return held{}, away("read what it holds", err)
	}
	if record["nodes"] != ids {
		return held{}, nil
	}
	return parseHeld(record)
}

func parseHeld(record map[string]string) (held, error) {
	h := held{views: map[uint64]int64{}, next: map[string]int64{}}
	for name, text := range record {
		n, err := strconv.ParseInt(text, 10, 64)
		if id, ok := strings.CutPrefix(name, "view:"); ok && err == nil {
			var uid uint64
			uid, err = strconv.ParseUint(id, 10, 64)
			h.views[uid] = n
		} else if tp, ok := strings.CutPrefix(name, "next:"); ok {
			h.next[tp] = n
		} else if name == "nodes" {
			continue
		}
		if err != nil {
			return held{}, fmt.Errorf("%w: its record has %s %q", ErrStoreAway, name, text)
		}
	}
	return h, nil
}

// record notes what the store holds, if its servers are still those that were
// opened.
func (s *SharedStore) record(ctx context.Context, h held) error {
	if ids, err := s.runIDs(ctx); err != nil || ids != s.nodes {
		return err // watch ends, if they are others
	}
	args := []string{s.nodes}
	for _, tp := range slices.Sorted(maps.Keys(h.next)) {
		args = append(args, "next:"+tp, fmt.Sprintf("%020d", h.next[tp]))
	}
	for _, uid := range slices.Sorted(maps.Keys(h.views)) {
		args = append(args, fmt.Sprintf("view:%d", uid), strconv.FormatInt(h.views[uid], 10))
	}
	c, err := s.connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, sharedWrite)
	defer cancel()
	if err := s.note.Exec(ctx, c, []string{s.recordKey()}, args).Error(); err != nil {
		return away("record what it holds", err)
	}
	return nil
}

// forget has the rows of a view removed.
func (s *SharedStore) forget(uid uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.gone[uid]; !ok {
		s.gone[uid] = time.Now()
	}
}

// sweep removes the rows of views that are gone; what fails is done later.
func (s *SharedStore) sweep(ctx context.Context) {
	s.mu.Lock()
	var gone []uint64
	for uid, since := range s.gone {
		if time.Since(since) >= s.cfg.Linger {
			gone = append(gone, uid)
		}
	}
	s.mu.Unlock()
	for _, uid := range gone {
		if err := s.remove(ctx, uid); err != nil {
			s.cfg.Scope.Log.Warn("rows of a deleted view are not removed from the shared online store yet", "uid", uid, telemetry.LogError, err)
			return
		}
		s.mu.Lock()
		delete(s.gone, uid)
		s.mu.Unlock()
	}
}

func (s *SharedStore) remove(ctx context.Context, uid uint64) error {
	c, err := s.connect()
	if err != nil {
		return err
	}
	if err := c.Do(ctx, c.B().Hdel().Key(s.recordKey()).Field(fmt.Sprintf("view:%d", uid)).Build()).Error(); err != nil {
		return away("forget a view", err)
	}
	pattern := fmt.Sprintf("%s:{*}:%d", s.cfg.Prefix, uid)
	for _, node := range c.Nodes() {
		for cursor := uint64(0); ; {
			page, err := node.Do(ctx, node.B().Scan().Cursor(cursor).Match(pattern).Count(1000).Build()).AsScanEntry()
			if err != nil {
				return away("find the rows of a view", err)
			}
			for _, err := range rueidis.MUnlink(c, ctx, page.Elements) {
				if err != nil {
					return away("remove the rows of a view", err)
				}
			}
			if cursor = page.Cursor; cursor == 0 {
				break
			}
		}
	}
	return nil
}
