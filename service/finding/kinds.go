package finding

// The kinds of finding that forward devices and subnets have.
const (
	DeviceMissing      ID = "forward-device-missing"
	SubnetInsideUplink ID = "subnet-inside-uplink"
	SubnetAroundUplink ID = "subnet-around-uplink"
	SubnetOnHost       ID = "subnet-on-host"
)

// The kinds of finding, by what they are about.
const (
	BridgeMissing       ID = "bridge-missing"
	NotABridge          ID = "not-a-bridge"
	BridgeTaken         ID = "bridge-taken"
	BridgeRenamed       ID = "bridge-renamed"
	BridgeUplink        ID = "bridge-is-uplink"
	ForwardingOff       ID = "forwarding-off"
	AdvertisementsHeard ID = "advertisements-heard"
	ZoneNotBound        ID = "zone-not-bound"
	ZoneMissing         ID = "zone-missing"
	FirewalldSilent     ID = "firewalld-unresponsive"
	LibvirtHasNetwork   ID = "libvirt-has-network"
	LibvirtRulesMissing ID = "libvirt-rules-missing"
	LibvirtUnreadable   ID = "libvirt-unreadable"
	FileUnusable        ID = "file-unusable"
	FileNeverUsable     ID = "file-never-usable"
	StateFileBroken     ID = "state-file-broken"
	NetworksConflict    ID = "networks-conflict"
	RulesMissing        ID = "rules-missing"
	RulesFoughtOver     ID = "rules-fought-over"
	RulesUnreadable     ID = "rules-unreadable"
	TableForeign        ID = "table-foreign"
	ForeignDrop         ID = "foreign-drop"
)

// Kinds returns the registry: every kind of finding that there is.
func Kinds() []Kind {
	return []Kind{
		{DeviceMissing, Warning, Degraded, "A forward device of the network is no interface of the host, by its own or an alternative name. Guests use it as soon as it appears."},
		{SubnetInsideUplink, Info, None, "A subnet of the network lies inside the subnet of one of the host's interfaces. Others on that link do not reach the guests by themselves."},
		{SubnetAroundUplink, Info, None, "A subnet of the network lies around the subnet of one of the host's interfaces. The host reaches the addresses of both over that interface."},
		{SubnetOnHost, Warning, None, "One of the host's interfaces has got the same subnet as the network. Which of the two a packet is for is a matter of chance."},
		{BridgeMissing, Info, Waiting, "The network's bridge does not exist. Its rules are in force for the bridge's name, and it is active as soon as the bridge appears."},
		{NotABridge, Error, Degraded, "What has the bridge's name is not a Linux bridge. The network's rules stay in force for the name."},
		{BridgeTaken, Warning, Waiting, "The network's bridge belongs to another network by now."},
		{BridgeRenamed, Info, None, "The network's bridge has another name than the network says. Its rules follow it."},
		{BridgeUplink, Warning, None, "The host has a default route through the network's bridge: by an advertisement, a router in a guest, or an administrator. The rules stay in force."},
		{ForwardingOff, Warning, Degraded, "The kernel does not forward packets, so guests reach nothing beyond the host."},
		{AdvertisementsHeard, Warning, Degraded, "The host listens to router advertisements on the network's bridge, so that a guest can make itself the host's router."},
		{ZoneNotBound, Warning, Degraded, "The bridge is not in its firewalld zone."},
		{ZoneMissing, Warning, Degraded, "firewalld lacks the zone that the bridge belongs in, so that its default zone decides."},
		{FirewalldSilent, Warning, Degraded, "firewalld does not answer. The rules are in force, and bridges enter and leave their zones as soon as it does."},
		{LibvirtHasNetwork, Info, None, "libvirt runs the network too. Its own rules for the network stay as they are, beside the service's."},
		{LibvirtUnreadable, Warning, None, "A file in which libvirt notes a network that it runs cannot be read. Until it can be, nothing of libvirt's is taken for left behind."},
		{LibvirtRulesMissing, Warning, None, "libvirt runs the network too, and rules that it made for it have been taken out. The service's are in force; without it the guests would miss them."},
		{FileUnusable, Error, Degraded, "The file that defines the network cannot be used. Its last good definition is in force."},
		{FileNeverUsable, Error, None, "A file in the networks' folder cannot be used, and no good definition of it is known, so no network is made of it."},
		{ConfigurationUnusable, Error, None, "The service's own configuration, or libvirt's, could not be used when the service started. The last good one is in force, or the defaults where there was none."},
		{StateFileBroken, Warning, None, "A file that the service keeps its state in could not be used and was put aside."},
		{NetworksConflict, Error, Failed, "The network clashes with another one, which stays in force: they want the same bridge or the same addresses."},
		{RulesMissing, Error, Failed, "The network's rules are not all in force: another program removed or changed them, and they are not put back yet."},
		{RulesFoughtOver, Warning, Degraded, "Another program undoes the network's rules each time they are put back, so repairs pause, up to a minute."},
		{RulesUnreadable, Error, Degraded, "The kernel's rules can't be compared with what should be there, so nobody knows whether they are in force."},
		{TableForeign, Error, Failed, "The service's nft table belongs to another program, which made it and which the kernel lets nobody else change. The network's rules are not in force."},
		{ForeignDrop, Warning, Degraded, "Rules of another program stop packets that the network is entitled to: the host's firewall has to let them pass too."},
	}
}
