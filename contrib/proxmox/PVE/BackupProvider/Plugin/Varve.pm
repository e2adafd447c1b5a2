# SPDX-License-Identifier: Apache-2.0
package PVE::BackupProvider::Plugin::Varve;

# Backups of Proxmox VE's virtual machines in varve, and their restore.
#
# A backup is one run of `varve pull` on the NBD exports that Proxmox VE makes of a guest's disks.
# Disk 0 in varve is not one of the guest's: it is the description, a small disk with the guest's
# configuration as JSON, so that it is published, kept and deleted together with the disks.
#
# An incremental is made only when it is certain what the bitmap counts from. Proxmox VE says no
# more than that a QEMU process has a bitmap; a file in the state directory says for which process
# and which backup that is. If varve's newest point is of another backup, everything is read again.

use strict;
use warnings;

use Errno qw(ENOENT);
use Fcntl qw(O_CREAT O_TRUNC O_WRONLY);
use File::Path qw(make_path remove_tree);
use File::Temp qw(tempdir);
use JSON::PP;
use POSIX ();

use base qw(PVE::BackupProvider::Plugin::Base);

use constant {
    DESCRIPTION_DISK => 0,
    DESCRIPTION_LABEL => 'proxmox-description',
    DESCRIPTION_FORMAT => 'varve-proxmox-1',
    DESCRIPTION_BYTES => 1 << 20,
    SECTOR_BYTES => 512,
    PROGRESS_SECONDS => 30,
};

our $QEMU_PID_DIR = '/run/qemu-server';

sub new {
    my ($class, $storage_plugin, $scfg, $storeid, $log_function) = @_;
    return bless {
        plugin => $storage_plugin,
        scfg => $scfg,
        storeid => $storeid,
        log => $log_function,
        guests => {},      # by vmid: what backup_init and its successors know of the backup
        restores => {},    # by volume: the files that were made for a restore
    }, $class;
}

sub provider_name { return 'varve'; }

# --- small helpers ---

sub info { $_[0]->{log}->('info', $_[1]); }
sub warning { $_[0]->{log}->('warn', $_[1]); }

sub setting { return $_[0]->{plugin}->setting($_[0]->{scfg}, $_[1]); }
sub call { my $self = shift; return $self->{plugin}->call($self->{scfg}, $self->{storeid}, @_); }
sub vm_name { return $_[0]->{plugin}->vm_name($_[0]->{scfg}, $_[1]); }

# Perl lets no text from outside into commands and file names (perlsec): what is allowed is said
# here.
sub checked {
    my ($text, $pattern, $what) = @_;
    return $1 if defined($text) && $text =~ m/^($pattern)\z/;
    die "$what '" . ($text // '') . "' has characters that it must not have\n";
}

sub checked_vmid { return checked($_[0], qr/[1-9]\d*/, 'VM id'); }
sub checked_device { return checked($_[0], qr/[A-Za-z0-9][A-Za-z0-9_.-]*/, 'device name'); }
sub checked_path { return checked($_[0], qr!/[^\0\n]*!, 'path'); }

sub directory {
    my ($path) = @_;
    $path = checked_path($path);
    make_path($path, { mode => 0700 });
    return $path;
}

sub read_file {
    my ($file) = @_;
    open(my $in, '<:raw', $file) or return;
    local $/;
    return <$in>;
}

sub write_file {
    my ($file, $content) = @_;
    sysopen(my $out, $file, O_WRONLY | O_CREAT | O_TRUNC, 0600) or die "$file: $!\n";
    binmode($out);
    print $out $content or die "$file: $!\n";
    close($out) or die "$file: $!\n";
}

sub json { return JSON::PP->new->utf8->canonical; }

# --- the program varve ---

# Starts a program, without a shell and with nothing of this environment. Returns where its output
# is read, stderr with it, and its process id.
sub start_program {
    my ($environment, $program, @words) = @_;
    my $pid = open(my $out, '-|') // die "fork: $!\n";
    return ($out, $pid) if $pid;
    $SIG{$_} = 'DEFAULT' for qw(INT TERM QUIT HUP PIPE);
    open(STDIN, '<', '/dev/null');
    open(STDERR, '>&', \*STDOUT);
    %ENV = (PATH => '/usr/sbin:/usr/bin:/sbin:/bin', %$environment);
    { no warnings 'exec'; exec { $program } $program, @words; }
    print STDOUT "$program: $!\n";
    POSIX::_exit(127);
}

# Calls $on_line with each line, then returns how the program ended, nothing if well. An exception
# of $on_line, or of a signal to vzdump, ends the program and is passed on.
sub read_program {
    my ($out, $pid, $on_line) = @_;
    my $done = eval {
        while (my $line = <$out>) {
            chomp($line);
            $on_line->($line) if length($line);
        }
        1;
    };
    if (!$done) {
        my $why = $@;
        kill('TERM', $pid);
        close($out);
        die $why;
    }
    return if close($out);
    my $status = $? >> 8;
    return $? & 127 ? 'was killed by signal ' . ($? & 127) : "ended with status $status";
}

# Runs varve to its end, and calls $on_event with each object that it prints. Dies with its words
# when it fails. varve pull, when it is ended by a signal, cancels its backup.
sub run_varve {
    my ($self, $on_event, @words) = @_;
    my $program = checked_path($self->setting('varve-binary'));
    my $server = checked($self->{scfg}->{'varve-url'}, qr!http://\S+!, 'varve-url');
    push @words, '--json', '--server', $server;
    if (defined(my $directory = $self->setting('varve-tls-certificates'))) {
        push @words, '--tls-certificates', checked_path($directory);
    }
    my $token = $self->{plugin}->read_token($self->{storeid});
    my %environment;
    $environment{VARVE_TOKEN} = checked($token, qr/\S+/, 'varve-token') if defined($token);

    my $said;
    my ($out, $pid) = start_program(\%environment, $program, @words);
    my $ended = read_program(
        $out, $pid,
        sub {
            my ($line) = @_;
            my $event = eval { JSON::PP->new->utf8->decode($line) };
            if (ref($event) ne 'HASH') {
                $said = $line;
            } elsif ($event->{event} eq 'error') {
                $said = $event->{message};
            } elsif ($event->{event} eq 'warning') {
                $self->warning($event->{message});
            } else {
                $on_event->($event);
            }
        },
    );
    die "varve $words[0]: " . ($said // $ended) . "\n" if $ended;
}

# An export of a Unix socket, as varve and other NBD programs write it.
sub nbd_uri {
    my ($socket, $export) = @_;
    s/([^A-Za-z0-9_.~\/-])/sprintf('%%%02X', ord($1))/ge for $socket, $export;
    return "nbd+unix:///$export?socket=$socket";
}

# --- what the bitmaps count from ---

# Names the process, so that neither a restarted nor a migrated guest is taken for it. A guest that
# was away and has come back is another process, whatever bitmaps came with it.
sub qemu_process {
    my ($vmid) = @_;
    my ($pid) = (read_file("$QEMU_PID_DIR/$vmid.pid") // '') =~ m/^(\d+)\s*$/ or return;
    my ($after_name) = (read_file("/proc/$pid/stat") // '') =~ m/^.*\)\s+(.*)$/s or return;
    my $started = (split(' ', $after_name))[19];    # field 22 of proc(5)
    my ($boot) = (read_file('/proc/sys/kernel/random/boot_id') // '') =~ m/^(\S+)/ or return;
    return "$pid-$started-$boot";
}

sub state_directory {
    my ($self) = @_;
    my $store = checked($self->{storeid}, qr/[A-Za-z0-9_.-]+/, 'storage id');
    return directory($self->setting('varve-statedir') . "/$store");
}

sub state_file {
    my ($self, $vmid) = @_;
    return $self->state_directory() . "/$vmid.json";
}

sub read_state {
    my ($self, $vmid) = @_;
    my $state = eval { json()->decode(read_file($self->state_file($vmid)) // '') };
    return ref($state) eq 'HASH' ? $state : undef;
}

sub write_state {
    my ($self, $vmid, $state) = @_;
    my $file = $self->state_file($vmid);
    if (!$state) {
        unlink($file) or $! == ENOENT or die "$file: $!\n";
        return;
    }
    write_file("$file.new", json()->encode($state));
    rename("$file.new", $file) or die "$file: $!\n";
}

# The change id and the place in its chain of the newest point, whoever made it; nothing if there is
# none or its disks disagree.
sub newest_point {
    my ($self, $vmid) = @_;
    my $name = PVE::Storage::Custom::VarvePlugin::encoded($self->vm_name($vmid));
    my ($status, $answer) =
        $self->call('GET', "/api/v1/points?vm_name=$name", also => [404]);
    return if $status == 404;
    my $repository = $self->setting('varve-repository');
    my @points = grep { $_->{repository_id} eq $repository } $answer->{points}->@*;
    @points = grep { $_->{backup_id} eq $points[0]->{backup_id} } @points;
    return if !@points || grep { $_->{change_id} ne $points[0]->{change_id} } @points;
    my ($last) = sort { $b <=> $a } map { $_->{position} } @points;
    return { change_id => $points[0]->{change_id}, position => $last };
}

# (change id, undef) of the backup that an incremental can be based on, or (undef, why not).
sub base_for_incremental {
    my ($self, $vmid, $devices) = @_;
    my $newest = $self->newest_point($vmid);
    return (undef, 'varve has no backup of it yet') if !$newest;
    my $state = $self->read_state($vmid);
    return (undef, 'it is not known here what its bitmaps count from') if !$state;
    my $process = qemu_process($vmid);
    return (undef, 'its QEMU is another process than at the last backup')
        if !defined($process) || ($state->{qemu} // '') ne $process;
    return (undef, 'other disks are backed up than the last time')
        if join(' ', sort $devices->@*) ne join(' ', sort @{ $state->{devices} // [] });
    return (undef, "the newest backup in varve is of $newest->{change_id}, and its bitmaps count"
            . " from $state->{checkpoint}")
        if $newest->{change_id} ne $state->{checkpoint};
    my $length = $self->setting('varve-chain-length');
    return (undef, "the chain has $length backups") if $newest->{position} + 1 >= $length;
    return (checked($state->{checkpoint}, qr!pve/\d+-\d+!, 'checkpoint'), undef);
}

# --- what varve knows of the VM ---

# Brings the VM's registration to these disks ({ device => bytes }). Returns the number of each in
# varve and the size of the description. A device keeps its number, also while it is away.
sub register_disks {
    my ($self, $vmid, $sizes, $description_bytes) = @_;
    my $vm_name = $self->vm_name($vmid);
    my $path = '/api/v1/vm-contexts/' . PVE::Storage::Custom::VarvePlugin::encoded($vm_name);
    my ($status, $vm) = $self->call('GET', $path, also => [404]);
    my @known = $status == 404 ? () : $vm->{disks}->@*;
    my $foreign = $status != 404 && length($vm->{context}->{vm_path} // '');
    my ($first) = grep { $_->{disk_index} == DESCRIPTION_DISK } @known;
    $foreign ||= $first && ($first->{label} // '') ne DESCRIPTION_LABEL;
    die "VM '$vm_name' in varve is not one of Proxmox VE's; set another varve-vm-prefix\n"
        if $foreign;

    my %wanted = (%$sizes, DESCRIPTION_LABEL() => $description_bytes);
    my ($differs, $next_key) = (0, 0);
    my @disks;
    for my $disk (sort { $a->{disk_index} <=> $b->{disk_index} } @known) {
        $next_key = $disk->{vmware_disk_key} + 1 if $disk->{vmware_disk_key} >= $next_key;
        my $bytes = delete($wanted{ $disk->{label} });
        if (!defined($bytes)) {
            $differs ||= !$disk->{removed};
            next;
        }
        # A description that shrank would be a full image in an incremental.
        $bytes = $disk->{capacity_bytes}
            if $disk->{label} eq DESCRIPTION_LABEL && $bytes < $disk->{capacity_bytes};
        $differs ||= $disk->{removed} || $disk->{capacity_bytes} != $bytes;
        push @disks,
            { disk_id => $disk->{disk_id}, label => $disk->{label}, capacity_bytes => $bytes };
    }
    # Numbers are given in this order: the description's is the first.
    for my $label (sort { ($b eq DESCRIPTION_LABEL) <=> ($a eq DESCRIPTION_LABEL) || $a cmp $b }
        keys %wanted)
    {
        push @disks, {
            disk_id => 'disk-' . $next_key++,
            label => $label,
            capacity_bytes => $wanted{$label},
        };
        $differs = 1;
    }
    if ($differs) {
        $self->call('PUT', $path, body => { disks => \@disks });
        ($status, $vm) = $self->call('GET', $path);
    }
    my %index;
    for my $disk (grep { !$_->{removed} } $vm->{disks}->@*) {
        $index{ $disk->{label} } = checked($disk->{disk_index}, qr/\d+/, 'disk number');
        $description_bytes = checked($disk->{capacity_bytes}, qr/\d+/, 'size')
            if $disk->{label} eq DESCRIPTION_LABEL;
    }
    die "varve numbers the disks of VM '$vm_name' otherwise than expected\n"
        if ($index{ DESCRIPTION_LABEL() } // -1) != DESCRIPTION_DISK
        || grep { !defined($index{$_}) } keys %$sizes;
    return (\%index, $description_bytes);
}

sub sectors {
    my ($bytes) = @_;
    return int(($bytes + SECTOR_BYTES - 1) / SECTOR_BYTES) * SECTOR_BYTES;
}

# --- backup ---

sub job_init {
    my ($self, $start_time) = @_;
    my $program = $self->setting('varve-binary');
    die "there is no program '$program': install varve or set varve-binary\n" if !-x $program;
    my ($status, $answer) = $self->call('GET', '/readyz', also => [503]);
    die "varve is not ready: " . json()->encode($answer // {}) . "\n" if $status == 503;
}

sub job_cleanup { return; }

sub backup_init {
    my ($self, $vmid, $vmtype, $start_time) = @_;
    $vmid = checked_vmid($vmid);
    $start_time = checked($start_time, qr/\d+/, 'start time');
    my $volname = $self->{plugin}->volume_name($vmid, $start_time);
    $self->{guests}->{$vmid} =
        { checkpoint => "pve/$vmid-$start_time", 'start-time' => $start_time };
    # The storage's content type is put before it.
    return { 'archive-name' => $volname =~ s!^backup/!!r };
}

sub backup_get_mechanism {
    my ($self, $vmid, $vmtype) = @_;
    return 'nbd' if $vmtype eq 'qemu';
    die "varve backs up virtual machines only: a container has no disk that could be read as a"
        . " block device\n";
}

sub backup_vm_query_incremental {
    my ($self, $vmid, $volumes) = @_;
    $vmid = checked_vmid($vmid);
    my $guest = $self->{guests}->{$vmid};
    my ($base, $why_not) = $self->base_for_incremental($vmid, [keys %$volumes]);
    $self->info($base ? "changes since $base are asked for" : "everything is read: $why_not");
    $guest->{base} = $base;
    $guest->{qemu} = qemu_process($vmid);
    # Without a base too a bitmap is begun, for the next backup.
    return { map { $_ => $base ? 'use' : 'new' } keys %$volumes };
}

# The arguments of varve pull that are one disk's. In an incremental only a bitmap that was in use
# counts from the base; for any other disk a list names the whole of it.
sub disk_arguments {
    my ($number, $source, $volume, $bytes, $incremental, $directory) = @_;
    my @words = ('--disk', "$number=$source");
    return @words if !$incremental;
    if ($volume->{'bitmap-mode'} eq 'reuse') {
        my $bitmap = checked($volume->{'bitmap-name'}, qr/[\x21-\x7e]+/, 'bitmap name');
        return (@words, '--bitmap', "$number=$bitmap");
    }
    write_file("$directory/whole-$number", "0 $bytes\n");
    return (@words, '--changed', "$number=$directory/whole-$number");
}

sub description {
    my ($self, $vmid, $guest_config, $volumes, $numbers, $firewall_config) = @_;
    my $text = json()->encode({
        format => DESCRIPTION_FORMAT,
        vmid => int($vmid),
        time => int($self->{guests}->{$vmid}->{'start-time'}),
        'guest-config' => $guest_config,
        (defined($firewall_config) ? ('firewall-config' => $firewall_config) : ()),
        devices => {
            map { $_ => { disk => int($numbers->{$_}), size => int($volumes->{$_}->{size}) } }
                keys %$volumes
        },
    });
    return $text;
}

sub pull {
    my ($self, $vmid, $guest_config, $volumes, $info, $directory) = @_;
    my $guest = $self->{guests}->{$vmid};
    my @devices = sort keys %$volumes;
    my @reused = grep { $volumes->{$_}->{'bitmap-mode'} eq 'reuse' } @devices;
    die "Proxmox VE has old bitmaps of " . join(', ', @reused) . ", and new ones were asked for\n"
        if @reused && !$guest->{base};
    my $incremental = @reused > 0;

    # The numbers in the description are only known once it is registered; JSON's size is not
    # changed by more than a few digits.
    my %sizes = map { $_ => sectors($volumes->{$_}->{size}) } @devices;
    my $draft = $self->description($vmid, $guest_config, $volumes, { map { $_ => 0 } @devices },
        $info->{'firewall-config'});
    my $needed = length($draft) + 16 * @devices + 1;
    my $bytes = int(($needed + DESCRIPTION_BYTES - 1) / DESCRIPTION_BYTES) * DESCRIPTION_BYTES;
    (my $numbers, $bytes) = $self->register_disks($vmid, \%sizes, $bytes);
    my $text = $self->description($vmid, $guest_config, $volumes, $numbers,
        $info->{'firewall-config'});
    my $file = "$directory/description.raw";
    write_file($file, $text);
    truncate($file, $bytes) or die "$file: $!\n";

    my @words = ('pull', checked($self->vm_name($vmid), qr/[A-Za-z0-9_.-]+/, 'name'));
    push @words, disk_arguments(DESCRIPTION_DISK, $file, { 'bitmap-mode' => 'none' }, $bytes,
        $incremental, $directory);
    my %device_of = (DESCRIPTION_DISK() => 'the description');
    for my $device (@devices) {
        my $volume = $volumes->{$device};
        my $source = nbd_uri(checked_path($volume->{'nbd-path'}), checked_device($device));
        my $number = $numbers->{$device};
        push @words, disk_arguments($number, $source, $volume,
            checked($volume->{size}, qr/\d+/, 'size'), $incremental, $directory);
        $device_of{$number} = $device;
        my $how = !$incremental || $volume->{'bitmap-mode'} eq 'reuse' ? '' : ', whole';
        $self->info("$device is disk $number$how");
    }
    push @words, '--checkpoint', $guest->{checkpoint};
    push @words, '--since', $guest->{base} if $incremental;
    push @words, '--repository',
        checked($self->setting('varve-repository'), qr/[\x21-\x7e]+/, 'varve-repository');
    push @words, '--trim-source';
    push @words, '--rate', checked($info->{'bandwidth-limit'}, qr/\d+/, 'bandwidth limit')
        if $info->{'bandwidth-limit'};

    my ($device, $reported) = ('', time());
    $self->run_varve(
        sub {
            my ($event) = @_;
            if ($event->{event} eq 'start') {
                my ($number) = $event->{target} =~ m/(\d+)$/;
                $device = $device_of{ $number // '' } // $event->{target};
            } elsif ($event->{event} eq 'progress') {
                return if time() < $reported + PROGRESS_SECONDS;
                $reported = time();
                $self->info(sprintf('%s: %.0f%%, %d MiB copied, %d MiB/s', $device,
                    100 * $event->{done_bytes} / ($event->{size_bytes} || 1),
                    $event->{data_bytes} >> 20, $event->{bytes_per_second} >> 20));
            } elsif ($event->{event} eq 'done') {
                $self->info(sprintf('%s: done, %d MiB copied, %d MiB zero', $device,
                    $event->{data_bytes} >> 20, $event->{zero_bytes} >> 20));
            } elsif ($event->{event} eq 'published') {
                $guest->{'backup-id'} = $event->{backup_id};
                $self->info("published $event->{backup_id}, $event->{backup_type}");
            }
        },
        @words,
    );
    die "varve pull ended without a word of what it published\n" if !$guest->{'backup-id'};
}

sub backup_vm {
    my ($self, $vmid, $guest_config, $volumes, $info) = @_;
    $vmid = checked_vmid($vmid);
    my $guest = $self->{guests}->{$vmid};
    # If this process is killed, nobody knows whether the bitmaps were begun anew.
    my $before = $self->read_state($vmid);
    $self->write_state($vmid, undef);
    my $directory = tempdir("backup-$vmid-XXXXXX", DIR => $self->state_directory());
    my $done = eval { $self->pull($vmid, $guest_config, $volumes, $info, $directory); 1 };
    my $failure = $@;
    remove_tree($directory);
    if (!$done) {
        # Proxmox VE adds the failed backup's bitmap to what comes: nothing since $before is lost.
        eval { $self->write_state($vmid, $before) };
        die $failure;
    }
    return if !defined($guest->{qemu}) || $guest->{qemu} ne (qemu_process($vmid) // '');
    eval {
        $self->write_state($vmid, {
            checkpoint => $guest->{checkpoint},
            qemu => $guest->{qemu},
            devices => [sort keys %$volumes],
        });
        1;
    } or $self->warning("the next backup will be a full: $@");
}

# A backup that is published stays, whatever becomes of the job afterwards; one that is not has been
# cancelled by varve pull.
sub backup_cleanup {
    my ($self, $vmid, $vmtype, $success, $info) = @_;
    my $guest = delete($self->{guests}->{ $vmid // '' }) or return;
    return if !$success;
    my $size = eval {
        my ($backup) = grep { $_->{id} eq ($guest->{'backup-id'} // '') }
            $self->{plugin}->backups($self->{scfg}, $self->{storeid}, checked_vmid($vmid))->@*;
        $backup->{size};
    };
    return { stats => { 'archive-size' => $size // 0 } };
}

# varve has no place for it; Proxmox VE keeps the task's log itself.
sub backup_handle_log_file { return; }

sub backup_container_prepare { return $_[0]->backup_get_mechanism($_[1], 'lxc'); }
sub backup_container { return $_[0]->backup_get_mechanism($_[1], 'lxc'); }

# --- restore ---

# The documentation calls it a volume ID, the code hands over what is after the storage's name.
sub volume {
    my ($self, $volname) = @_;
    return $volname =~ s/^\Q$self->{storeid}\E://r;
}

sub backup_to_restore {
    my ($self, $volname) = @_;
    return $self->{plugin}
        ->backup_of_volume($self->{scfg}, $self->{storeid}, $self->volume($volname));
}

sub copy_out {
    my ($self, $backup, $disk, $file) = @_;
    my $name = checked($self->vm_name($backup->{vmid}), qr/[A-Za-z0-9_.-]+/, 'name');
    my $id = checked($backup->{id}, qr/[A-Za-z0-9_.-]+/, 'backup id');
    my $number = checked($disk, qr/\d+/, 'disk number');
    $self->run_varve(sub { }, 'restore', "$name\@$id", '--disk', $number, '--to', $file);
}

sub read_description {
    my ($self, $volname) = @_;
    my $backup = $self->backup_to_restore($volname);
    my $directory = tempdir('description-XXXXXX', DIR => $self->state_directory());
    my $text = eval {
        $self->copy_out($backup, DESCRIPTION_DISK, "$directory/description.raw");
        read_file("$directory/description.raw");
    };
    my $failure = $@;
    remove_tree($directory);
    die $failure if !defined($text);
    $text =~ s/\0.*//s;
    my $description = eval { json()->decode($text) };
    die "$backup->{id}: disk 0 does not hold the configuration of a guest of Proxmox VE\n"
        if ref($description) ne 'HASH' || ($description->{format} // '') ne DESCRIPTION_FORMAT;
    return ($description, $backup);
}

sub restore_get_mechanism { return ('qemu-img', 'qemu'); }

sub archive_get_guest_config {
    my ($self, $volname) = @_;
    return ($self->read_description($volname))[0]->{'guest-config'};
}

sub archive_get_firewall_config {
    my ($self, $volname) = @_;
    return ($self->read_description($volname))[0]->{'firewall-config'};
}

sub restore_vm_init {
    my ($self, $volname) = @_;
    my ($description, $backup) = $self->read_description($volname);
    my %devices = $description->{devices}->%*;
    for my $device (keys %devices) {
        my $point = $backup->{points}->{ $devices{$device}->{disk} }
            or die "$backup->{id} has no disk $devices{$device}->{disk} for $device\n";
        $devices{$device} = { $devices{$device}->%*, point => $point };
    }
    $self->{restores}->{ $self->volume($volname) } = { backup => $backup, devices => \%devices };
    return { map { $_ => { size => int($devices{$_}->{point}->{size_bytes}) } } keys %devices };
}

sub restore_vm_volume_init {
    my ($self, $volname, $device, $info) = @_;
    my $restore = $self->{restores}->{ $self->volume($volname) }
        or die "the restore of '$volname' has not begun\n";
    my $from = $restore->{devices}->{$device} or die "'$volname' has no disk $device\n";
    if ($self->setting('varve-restore') eq 'nbd') {
        my $uri = $from->{point}->{uris}->[0] // die "varve serves no points over NBD\n";
        return { 'qemu-img-path' => checked($uri, qr!nbd(?:\+unix)?://\S+!, 'URI') };
    }
    my $parent = checked_path($self->setting('varve-restore-dir'));
    $restore->{directory} //= tempdir('varve-restore-XXXXXX', DIR => $parent);
    my $file = "$restore->{directory}/" . checked_device($device) . '.raw';
    $self->info("$device: copying disk $from->{disk} of $restore->{backup}->{id} to $file");
    $self->copy_out($restore->{backup}, $from->{disk}, $file);
    return { 'qemu-img-path' => $file };
}

sub restore_vm_volume_cleanup {
    my ($self, $volname, $device, $info) = @_;
    my $restore = $self->{restores}->{ $self->volume($volname) } or return;
    unlink("$restore->{directory}/" . checked_device($device) . '.raw') if $restore->{directory};
    return;
}

sub restore_vm_cleanup {
    my ($self, $volname) = @_;
    my $restore = delete($self->{restores}->{ $self->volume($volname) }) or return;
    remove_tree($restore->{directory}) if $restore->{directory};
    return;
}

sub restore_container_init { die "varve has no backups of containers\n"; }
sub restore_container_cleanup { return; }

1;
