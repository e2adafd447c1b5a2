# SPDX-License-Identifier: Apache-2.0
package PVE::Storage::Custom::VarvePlugin;

# A storage of Proxmox VE whose content is the backups of a varve server. It lists, prunes and
# deletes them; PVE::BackupProvider::Plugin::Varve makes and restores them.
#
# A volume is called backup/vm/<vmid>/<time>, the time being that at which vzdump began the guest.
# It is the backup of the VM <varve-vm-prefix><vmid> whose change id is pve/<vmid>-<that time>.

use strict;
use warnings;

use Errno qw(ENOENT);
use Fcntl qw(O_CREAT O_TRUNC O_WRONLY);
use HTTP::Tiny;
use JSON::PP;
use POSIX qw(strftime);
use Time::Local qw(timegm);

use PVE::BackupProvider::Plugin::Varve;
use PVE::Storage::Plugin;

use base qw(PVE::Storage::Plugin);

# Backups made on one node are seen by all.
push @PVE::Storage::Plugin::SHARED_STORAGE, 'varve';

use constant {
    API_MIN => 11,    # Proxmox VE 8.4, the first with backup providers
    API_MAX => 13,    # Proxmox VE 9; what is new since 11 concerns disk images
};

our $TOKEN_DIR = '/etc/pve/priv/storage';

# --- configuration ---

sub api {
    my $running = PVE::Storage->can('APIVER');
    my $version = $running ? $running->() : API_MIN;
    return $version < API_MIN ? API_MIN : $version > API_MAX ? API_MAX : $version;
}

sub type {
    return 'varve';
}

sub plugindata {
    return {
        content => [{ backup => 1, none => 1 }, { backup => 1 }],
        features => { 'backup-provider' => 1 },
        'sensitive-properties' => { 'varve-token' => 1 },
    };
}

# All storage plugins share one list of names, and a name that is there twice stops them all: hence
# the prefix.
sub properties {
    return {
        'varve-url' => {
            description => 'The HTTP API of varve serve, for example http://127.0.0.1:8082.',
            type => 'string',
            pattern => 'http://\S+',
        },
        'varve-token' => {
            description => 'The API token of varve serve.',
            type => 'string',
        },
        'varve-repository' => {
            description => 'The id of the repository that backups go to.',
            type => 'string',
            default => '1',
        },
        'varve-vm-prefix' => {
            description => 'VM 100 is called <prefix>100 in varve. Clusters that back up to one'
                . ' varve need different ones.',
            type => 'string',
            pattern => '[A-Za-z0-9_.-]+',
            default => 'pve-',
        },
        'varve-chain-length' => {
            description => 'After so many points, a full and incrementals, a new full is made.',
            type => 'integer',
            minimum => 1,
            maximum => 256,
            default => 30,
        },
        'varve-binary' => {
            description => 'The program varve on this node.',
            type => 'string',
            default => '/usr/bin/varve',
        },
        'varve-tls-certificates' => {
            description => 'A directory with ca-cert.pem, where varve serves NBD with TLS.',
            type => 'string',
        },
        'varve-restore' => {
            description => 'How a disk reaches qemu-img: copy - as a file in varve-restore-dir.'
                . ' nbd - as an NBD URI of varve.',
            type => 'string',
            enum => [qw(copy nbd)],
            default => 'copy',
        },
        'varve-restore-dir' => {
            description => 'Where disks are copied to while they are restored.',
            type => 'string',
            default => '/var/tmp',
        },
        'varve-statedir' => {
            description => 'What each QEMU process has a bitmap for. May be lost at a reboot.',
            type => 'string',
            default => '/run/varve-pve',
        },
    };
}

sub options {
    return {
        'varve-url' => { fixed => 1 },
        (map { $_ => { optional => 1 } } grep { $_ ne 'varve-url' } keys properties()->%*),
        nodes => { optional => 1 },
        disable => { optional => 1 },
        content => { optional => 1 },
        'prune-backups' => { optional => 1 },
        'max-protected-backups' => { optional => 1 },
    };
}

# The configured value, or the default that properties() names.
sub setting {
    my ($class, $scfg, $name) = @_;
    return $scfg->{$name} // properties()->{$name}->{default};
}

# --- the token: in a file of the cluster that only root reads ---

sub token_file {
    my ($storeid) = @_;
    my ($safe) = $storeid =~ m/^([A-Za-z0-9_.-]+)$/ or die "storage id '$storeid' is no name\n";
    return "$TOKEN_DIR/$safe.varve-token";
}

sub write_token {
    my ($storeid, $token) = @_;
    my $file = token_file($storeid);
    if (!defined($token)) {
        unlink($file) or $! == ENOENT or die "$file: $!\n";
        return;
    }
    mkdir($TOKEN_DIR);
    sysopen(my $out, $file, O_WRONLY | O_CREAT | O_TRUNC, 0600) or die "$file: $!\n";
    print $out "$token\n";
    close($out) or die "$file: $!\n";
}

sub read_token {
    my ($class, $storeid) = @_;
    open(my $in, '<', token_file($storeid)) or return;
    my $token = <$in> // '';
    chomp($token);
    return length($token) ? $token : undef;
}

sub on_add_hook {
    my ($class, $storeid, $scfg, %sensitive) = @_;
    write_token($storeid, $sensitive{'varve-token'});
    return;
}

sub on_update_hook {
    my ($class, $storeid, $scfg, %sensitive) = @_;
    write_token($storeid, $sensitive{'varve-token'}) if exists($sensitive{'varve-token'});
    return;
}

sub on_delete_hook {
    my ($class, $storeid, $scfg) = @_;
    write_token($storeid, undef);
    return;
}

# --- varve's HTTP API ---

sub encoded {
    my ($text) = @_;
    utf8::encode($text) if utf8::is_utf8($text);
    $text =~ s/([^A-Za-z0-9_.~-])/sprintf('%%%02X', ord($1))/ge;
    return $text;
}

# Returns (status, object). Only 2xx and what `also` lists are answers; all else dies.
sub call {
    my ($class, $scfg, $storeid, $method, $path, %more) = @_;
    my $url = $scfg->{'varve-url'} =~ s!/+$!!r;
    my $headers = { 'Content-Type' => 'application/json' };
    my $token = $class->read_token($storeid);
    $headers->{Authorization} = "Bearer $token" if defined($token);
    my $request = { headers => $headers };
    $request->{content} = JSON::PP->new->utf8->encode($more{body}) if $more{body};

    my $http = HTTP::Tiny->new(timeout => $more{timeout} // 30);
    my $answer = $http->request($method, $url . $path, $request);
    my $said = eval { JSON::PP->new->utf8->decode($answer->{content}) };
    return ($answer->{status}, $said)
        if $answer->{success} || grep { $_ == $answer->{status} } @{ $more{also} // [] };

    my $text = ref($said) eq 'HASH'
        ? join(': ', grep { defined($_) && length($_) } $said->@{qw(error details)})
        : $answer->{content};
    $text =~ s/\s+$//;
    die "varve at $url: $text\n" if $answer->{status} == 599;    # HTTP::Tiny's: no answer came
    die "varve at $url: $method $path: $answer->{status} $text\n";
}

# --- backups ---

sub vm_name {
    my ($class, $scfg, $vmid) = @_;
    return $class->setting($scfg, 'varve-vm-prefix') . $vmid;
}

sub volume_name {
    my ($class, $vmid, $time) = @_;
    return "backup/vm/$vmid/" . strftime('%Y-%m-%dT%H:%M:%SZ', gmtime($time));
}

# (vmid, time of the backup) of a volume's name, both safe to use in commands.
sub vmid_and_time {
    my ($class, $volname) = @_;
    $volname =~ m!^backup/vm/(\d+)/(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z$!
        or die "'$volname' is not the name of a backup in varve\n";
    return ($1, timegm($7, $6, $5, $4, $3 - 1, $2));
}

# The backups that this plugin has made, newest first, each with its points by disk. Those of other
# repositories and what others have made of the same VM are left out.
sub backups {
    my ($class, $scfg, $storeid, $vmid) = @_;
    my $path = '/api/v1/points';
    $path .= '?vm_name=' . encoded($class->vm_name($scfg, $vmid)) if defined($vmid);
    my ($status, $answer) = $class->call($scfg, $storeid, 'GET', $path, also => [404]);
    return [] if $status == 404;    # a VM that varve does not know has none

    my $repository = $class->setting($scfg, 'varve-repository');
    my (@backups, %by_id);
    for my $point ($answer->{points}->@*) {
        next if $point->{repository_id} ne $repository;
        my ($of, $time) = $point->{change_id} =~ m!^pve/(\d+)-(\d+)$! or next;
        next if $point->{vm_name} ne $class->vm_name($scfg, $of);
        my $backup = $by_id{ $point->{backup_id} };
        if (!$backup) {
            $backup = $by_id{ $point->{backup_id} } =
                { id => $point->{backup_id}, vmid => $of, time => $time, size => 0, points => {} };
            push @backups, $backup;
        }
        $backup->{points}->{ $point->{disk_id} } = $point;
        $backup->{size} += $point->{allocated_bytes} // 0;
    }
    return \@backups;
}

sub backup_of_volume {
    my ($class, $scfg, $storeid, $volname) = @_;
    my ($vmid, $time) = $class->vmid_and_time($volname);
    my ($backup) =
        grep { $_->{time} == $time } $class->backups($scfg, $storeid, $vmid)->@*;
    die "varve has no backup of VM $vmid of that time: '$volname'\n" if !$backup;
    return $backup;
}

# --- what Proxmox VE asks of a storage ---

sub parse_volname {
    my ($class, $volname) = @_;
    my ($vmid) = $class->vmid_and_time($volname);
    return ('backup', $volname =~ s!^backup/!!r, $vmid, undef, undef, undef, 'raw');
}

# Not a file: only the provider can open it.
sub path {
    my ($class, $scfg, $volname, $storeid, $snapname) = @_;
    die "backups in varve have no snapshots\n" if defined($snapname);
    my ($type, $name, $vmid) = $class->parse_volname($volname);
    return ("varve:$name", $vmid, $type);
}

sub filesystem_path {
    my ($class, $scfg, $volname, $snapname) = @_;
    return $class->path($scfg, $volname, undef, $snapname);
}

sub check_connection {
    my ($class, $storeid, $scfg) = @_;
    return eval { $class->call($scfg, $storeid, 'GET', '/livez', timeout => 5); 1 } ? 1 : 0;
}

sub activate_storage {
    my ($class, $storeid, $scfg, $cache) = @_;
    $class->call($scfg, $storeid, 'GET', '/livez', timeout => 5);
    return 1;
}

sub deactivate_storage { return 1; }
sub activate_volume { return 1; }
sub deactivate_volume { return 1; }

sub status {
    my ($class, $storeid, $scfg, $cache) = @_;
    my ($status, $answer) =
        $class->call($scfg, $storeid, 'GET', '/api/v1/repositories', timeout => 5);
    my $id = $class->setting($scfg, 'varve-repository');
    my ($repository) = grep { $_->{id} eq $id } $answer->{repositories}->@*;
    return (0, 0, 0, 0) if !$repository || !$repository->{enabled} || !$repository->{available};
    my $space = $repository->{storage_info} // {};
    return ((map { $space->{$_} // 0 } qw(total_bytes available_bytes used_bytes)), 1);
}

sub list_images { return []; }

sub list_volumes {
    my ($class, $storeid, $scfg, $vmid, $content_types) = @_;
    return [] if !grep { $_ eq 'backup' } $content_types->@*;
    return [
        map {
            {
                volid => "$storeid:" . $class->volume_name($_->{vmid}, $_->{time}),
                content => 'backup',
                subtype => 'qemu',
                format => 'raw',
                vmid => int($_->{vmid}),
                ctime => int($_->{time}),
                size => $_->{size},
            }
        } $class->backups($scfg, $storeid, $vmid)->@*
    ];
}

sub volume_size_info {
    my ($class, $scfg, $storeid, $volname, $timeout) = @_;
    my $backup = $class->backup_of_volume($scfg, $storeid, $volname);
    # A size of 0 would mean that there is no such volume.
    my $size = $backup->{size} || 1;
    return wantarray ? ($size, 'raw', $size, undef, int($backup->{time})) : $size;
}

# varve refuses while another backup is an incremental on this one: prune_backups() knows which.
sub free_image {
    my ($class, $storeid, $scfg, $volname, $isBase) = @_;
    my $backup = $class->backup_of_volume($scfg, $storeid, $volname);
    $class->call($scfg, $storeid, 'DELETE', '/api/v1/backups/' . encoded($backup->{id}));
    return;
}

# An incremental needs what is before it in its chain. So a backup that should go stays until all
# that are after it in its chain go too; each time, the newest ones go first.
sub prune_backups {
    my ($class, $scfg, $storeid, $keep, $vmid, $type, $dryrun, $logfunc) = @_;
    $logfunc //= sub { print "$_[1]\n" };
    return [] if defined($type) && $type ne 'qemu';

    my (@list, %by_guest, $failed);
    for my $backup ($class->backups($scfg, $storeid, $vmid)->@*) {
        my $volname = $class->volume_name($backup->{vmid}, $backup->{time});
        my $entry = {
            ctime => int($backup->{time}),
            type => 'qemu',
            vmid => int($backup->{vmid}),
            volid => "$storeid:$volname",
        };
        push @list, $entry;
        push $by_guest{ $backup->{vmid} }->@*, { $backup->%*, entry => $entry };
    }
    for my $guest (sort { $a <=> $b } keys %by_guest) {
        my $backups = $by_guest{$guest};
        PVE::Storage::prune_mark_backup_group([map { $_->{entry} } $backups->@*], $keep);
        my %needed;    # by generation: the volume for whose sake the older ones stay
        for my $backup ($backups->@*) {
            my $entry = $backup->{entry};
            my $generation = $backup->{points}->{0}->{generation} // '';
            if ($entry->{mark} eq 'remove' && $needed{$generation}) {
                $entry->{mark} = 'keep';
                $logfunc->('info', "$entry->{volid} stays: $needed{$generation} needs it");
            }
            if ($entry->{mark} ne 'remove') {
                $needed{$generation} //= $entry->{volid};
                next;
            }
            next if $dryrun;
            $logfunc->('info', "removing backup '$entry->{volid}'");
            my $path = '/api/v1/backups/' . encoded($backup->{id});
            next if eval { $class->call($scfg, $storeid, 'DELETE', $path, also => [404]); 1 };
            $logfunc->('err', "$entry->{volid}: $@");
            $needed{$generation} = $entry->{volid};
            $failed = 1;
        }
    }
    die "not all backups could be removed - see the log\n" if $failed;
    return \@list;
}

sub get_volume_attribute { return; }

sub update_volume_attribute {
    my ($class, $scfg, $storeid, $volname, $attribute, $value) = @_;
    die "varve keeps no '$attribute' with a backup\n";
}

sub volume_has_feature { return 0; }

sub backups_only { die "a varve storage holds backups only\n"; }

{
    no strict 'refs';
    *$_ = \&backups_only
        for qw(alloc_image clone_image create_base rename_volume volume_resize volume_snapshot
        volume_snapshot_rollback volume_snapshot_delete);
}

sub new_backup_provider {
    my ($class, $scfg, $storeid, $log_function) = @_;
    return PVE::BackupProvider::Plugin::Varve->new($class, $scfg, $storeid, $log_function);
}

1;
