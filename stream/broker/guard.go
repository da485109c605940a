package broker

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Guard says who a client is, by what it sends over SASL/PLAIN, and what it
// may do. Its error is what the client is told. It is asked again by no
// request: see [Client.Still].
type Guard func(user, password string, from net.Addr) (Client, error)

// Client is what a client may do with a broker that has a [Guard]. All else is
// denied: topics and groups that are not named are not even listed.
type Client struct {
	All    bool     // everything, as other processes of Kedge need it
	Read   []string // topics
	Write  []string // topics
	Prefix []string // of the groups and transactional ids that it may use
	// Still is asked before each request whether that is so yet; the connection
	// ends where it is not.
	Still func() bool
	// Denied hears what the client asked for and may not have, such as
	// ("Produce", "topic rides", true), once of each connection; writes says that
	// it wanted to produce. nil: nobody wants to know.
	Denied func(request, resource string, writes bool)
}

// maxRights bounds how many different sets of rights are told apart. kfake
// takes its users at the start alone, so there are as many, and each set gets
// one; its ACLs do the rest.
const maxRights = 2000

// owner is the user of this process itself, and of clients who may do
// everything.
const owner = "kedge"

// principals are kfake's users. None of their passwords leaves the process.
type principals struct {
	secret string
	grant  func(user string, c Client) error

	mu    sync.Mutex
	users map[string]string // by their rights
}

func newPrincipals(grant func(string, Client) error) *principals {
	return &principals{secret: rand.Text(), grant: grant, users: map[string]string{}}
}

// options make kfake ask for users and hold them to their rights.
func (p *principals) options() []kfake.Opt {
	opts := []kfake.Opt{kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", owner, p.secret)}
	for i := range maxRights {
		opts = append(opts, kfake.User("PLAIN", principal(i), p.secret))
	}
	return opts
}

func principal(i int) string { return fmt.Sprintf("client-%d", i) }

// user is the one that may do what a client may.
func (p *principals) user(c Client) (string, error) {
	if c.All {
		return owner, nil
	}
	var rights strings.Builder
	for _, list := range [][]string{c.Read, c.Write, c.Prefix} {
		list = slices.Clone(list)
		slices.Sort(list)
		fmt.Fprintf(&rights, "%q", list)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if name, ok := p.users[rights.String()]; ok {
		return name, nil
	}
	if len(p.users) >= maxRights {
		return "", errors.New("there are too many different sets of rights: the broker has to be started again")
	}
	name := principal(len(p.users))
	if err := p.grant(name, c); err != nil {
		return "", err
	}
	p.users[rights.String()] = name
	return name, nil
}

// own reports whether a password is this process's.
func (p *principals) own(user, password string) bool {
	return user == owner && subtle.ConstantTimeCompare([]byte(password), []byte(p.secret)) == 1
}

// grant gives a user the rights of a client.
func (b *Broker) grant(user string, c Client) error {
	req := kmsg.NewPtrCreateACLsRequest()
	req.SetVersion(1)
	allow := func(kind kmsg.ACLResourceType, name string, pattern kmsg.ACLResourcePatternType, op kmsg.ACLOperation) {
		one := kmsg.NewCreateACLsRequestCreation()
		one.Principal, one.Host, one.PermissionType = "User:"+user, "*", kmsg.ACLPermissionTypeAllow
		one.ResourceType, one.ResourceName, one.ResourcePatternType, one.Operation = kind, name, pattern, op
		req.Creations = append(req.Creations, one)
	}
	for _, topic := range c.Read {
		allow(kmsg.ACLResourceTypeTopic, topic, kmsg.ACLResourcePatternTypeLiteral, kmsg.ACLOperationRead)
	}
	for _, topic := range c.Write {
		allow(kmsg.ACLResourceTypeTopic, topic, kmsg.ACLResourcePatternTypeLiteral, kmsg.ACLOperationWrite)
	}
	for _, prefix := range c.Prefix {
		allow(kmsg.ACLResourceTypeGroup, prefix, kmsg.ACLResourcePatternTypePrefixed, kmsg.ACLOperationRead)
		allow(kmsg.ACLResourceTypeTransactionalId, prefix, kmsg.ACLResourcePatternTypePrefixed, kmsg.ACLOperationWrite)
	}
	if len(req.Creations) == 0 {
		return nil
	}
	res := kmsg.NewPtrCreateACLsResponse()
	res.SetVersion(req.GetVersion())
	if err := b.ask(req, res); err != nil {
		return fmt.Errorf("grant %s its topics: %w", user, err)
	}
	for _, r := range res.Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return fmt.Errorf("grant %s its topics: %w", user, err)
		}
	}
	return nil
}
