//! The texts of the pages, each a method of the language.

use super::Lang;

macro_rules! texts {
    ($($name:ident: $en:literal, $zh:literal;)+) => {
        impl Lang {
            $(pub const fn $name(self) -> &'static str {
                self.of($en, $zh)
            })+
        }

        /// For the tests: name, English, Chinese.
        #[cfg(test)]
        pub const ALL: &[(&str, &str, &str)] = &[$((concat!("pages.", stringify!($name)), $en, $zh)),+];
    };
}

texts! {
    // Around every page.
    nav_keys: "API keys", "API 密钥";
    nav_usage: "Usage", "用量";
    nav_clusters: "Clusters", "集群";
    nav_billing: "Billing", "计费";
    nav_audit: "Audit log", "审计日志";
    nav_account: "Account", "账户";
    nav_accounts: "Accounts", "账户列表";
    nav_gateways: "Gateways", "网关";
    navigation: "Main", "主导航";
    skip: "Skip to the content", "跳到正文";
    needs_script: "This console needs JavaScript to act for you. Its own script is all it loads.", "控制台需要启用 JavaScript 才能执行操作，且只加载自带脚本。";
    operator: "Operator", "运维人员";
    member: "Member", "成员";
    sign_out: "Sign out", "退出登录";
    times_in: "Times in", "时区：";
    api_reference: "API reference (OpenAPI)", "API 参考（OpenAPI）";
    copy: "Copy", "复制";
    close: "Close", "关闭";
    cancel: "Cancel", "取消";
    done: "Done", "完成";
    save: "Save", "保存";
    edit: "Edit", "编辑";
    optional: "optional", "选填";
    full_stop: ".", "。";
    failed_title: "Something is not right", "出了点问题";
    refused_title: "Not possible", "无法访问";
    bad_link: "This link is not valid.", "链接无效。";
    failed_text: "The page could not be made.", "无法生成此页面。";
    failed_code: "Code:", "错误码：";
    try_again: "Try again", "重试";
    to_start: "To the keys", "返回密钥页";

    // Signing in.
    sign_in: "Sign in", "登录";
    sign_in_text: "Manage the API keys of your account and see what they use.", "管理账户的 API 密钥并查看用量。";
    email: "E-mail", "邮箱";
    password: "Password", "密码";
    lost_access: "Lost your password or authenticator? Your operator can reset both.", "忘记密码或丢失验证器？请联系运维人员重置。";
    operator_sign_in: "Sign in as operator", "以运维人员身份登录";
    operator_sign_in_text: "The operator's token is shown once here; the session ends after two hours.", "在此输入一次运维令牌，会话两小时后结束。";
    operator_token: "Operator token", "运维令牌";
    sign_in_as_user: "Sign in with e-mail and password", "使用邮箱和密码登录";

    // Keys.
    keys_title: "API Key Management", "API 密钥管理";
    keys_text: "Keys let your programs call your clusters. Treat them like passwords.", "程序使用密钥访问集群，请像密码一样妥善保管。";
    active_of: "{0} of {1} active", "已启用 {0} / {1} 个";
    created_of: "{0} of {1} created today", "今日已创建 {0} / {1} 个";
    create_key: "Create key", "创建密钥";
    cannot_suspended: "This account is suspended.", "账户已被停用。";
    cannot_unverified: "The identity of this account is not verified yet. Your operator does that.", "账户尚未完成实名认证，请联系运维人员。";
    cannot_no_cluster: "This account has no cluster yet. Your operator sets one up.", "账户还没有集群，请联系运维人员创建。";
    cannot_active: "All {1} keys are in use ({0} of {1}). Delete one to create another.", "密钥数量已达上限（{0} / {1}）。删除一个后可再创建。";
    cannot_today: "{0} of {1} keys were created today. More from", "今日已创建 {0} / {1} 个密钥，可再次创建的时间：";
    read_only: "You can see the keys of this account. Its root user creates, views and deletes them.", "您可以查看账户的密钥列表；创建、查看和删除由主账号操作。";
    no_keys: "No keys yet", "还没有密钥";
    no_keys_text: "Create the first one and make a call within a minute.", "创建第一个密钥，一分钟内即可发起调用。";
    seen_in_browser: "was sent by a browser, so a web page may hold it. Keys are for servers only.", "曾由浏览器发送，可能已暴露在网页中。密钥只能在服务器端使用。";
    rotate_it: "Rotate it", "轮换密钥";
    unused_long: "has not been used for 90 days. If nothing needs it, delete it.", "已超过 90 天未使用。若不再需要，请删除。";
    key: "Key", "密钥";
    created: "Created", "创建时间";
    last_used: "Last used", "最近使用";
    calls_24h: "Calls, 24 h", "24 小时调用";
    status: "Status", "状态";
    actions: "Actions", "操作";
    spark_label: "{0} calls in the last 24 hours, by hour", "最近 24 小时共 {0} 次调用，按小时";
    never: "never", "从未使用";
    active: "Active", "启用";
    disabled: "Disabled", "停用";
    expired: "Expired", "已过期";
    deleted: "Deleted", "已删除";
    expires: "until", "有效期至";
    view: "View", "查看";
    rotate: "Rotate", "轮换";
    delete: "Delete", "删除";
    deleted_keys: "Deleted keys", "已删除的密钥";
    none_deleted: "None.", "无。";
    hide_deleted: "Hide deleted keys", "隐藏已删除的密钥";
    show_deleted: "Show deleted keys", "显示已删除的密钥";
    unnamed: "Unnamed key", "未命名密钥";
    name: "Name", "名称";
    name_example: "e.g. production indexer", "例如：生产环境索引服务";
    create_text: "The key works at once, on every gateway. Creating it counts toward today's limit, also if you delete it later.", "密钥创建后立即在所有网关生效，并计入今日创建次数，删除后不返还。";
    created_text: "Your key is ready. Copy it now; to see it again you will need a code of your authenticator.", "密钥已创建，请立即复制。之后再次查看需要验证器的动态码。";
    new_key: "New API key", "新的 API 密钥";
    first_call: "Make the first call", "发起第一次调用";
    servers_only: "For servers only: calls from browsers are refused.", "仅供服务器端使用：来自浏览器的调用会被拒绝。";
    view_title: "View key", "查看密钥";
    view_once: "Closing hides it. To see it again you verify again.", "关闭后即隐藏，再次查看需要重新验证。";
    hide: "Hide", "隐藏";
    edit_title: "Edit key", "编辑密钥";
    expires_on: "Expires", "过期时间";
    expires_hint: "In the account's time zone. Empty: never.", "按您所在的时区。留空表示永不过期。";
    disable_key: "Disabled", "停用此密钥";
    disable_hint: "Calls are denied on every gateway until it is enabled again. It still counts as one of your keys.", "在重新启用之前，所有网关都会拒绝调用；仍占用一个密钥名额。";
    delete_title: "Delete key", "删除密钥";
    delete_key: "Delete key", "删除密钥";
    still_used: "This key was used in the last 24 hours. Programs that still have it will fail.", "该密钥在最近 24 小时内有调用，仍在使用它的程序将会失败。";
    delete_text: "This cannot be undone. From the receipt on, no gateway admits a call with this key.", "删除后无法恢复。回执出具之后，任何网关都不再接受使用该密钥的调用。";
    type_word: "To confirm, type", "请输入以确认：";
    code: "Security code", "安全验证码";
    code_hint: "From your authenticator, or a recovery code.", "来自验证器，或使用恢复码。";

    // Rotation.
    rotate_title: "Rotate a key", "轮换密钥";
    rotate_text: "Replace a key without a call that fails.", "在不中断调用的情况下更换密钥。";
    rotate_gone: "This key is not there.", "找不到该密钥。";
    rotate_create: "Create the new key", "创建新密钥";
    rotate_create_text: "It replaces", "用于替换";
    rotate_full: "There is no free place for a second key. Delete one that is not needed first.", "没有空余的密钥名额，请先删除不再需要的密钥。";
    rotate_first_call: "See the first call with it", "确认新密钥已有调用";
    rotate_waiting: "Put the new key into your programs. This page watches by itself.", "请将新密钥配置到程序中，本页会自动刷新。";
    rotate_quiet: "See the old key go quiet", "确认旧密钥不再使用";
    rotate_still: "Quiet means: no call for a minute.", "一分钟内没有调用即视为不再使用。";
    rotate_delete: "Delete the old key", "删除旧密钥";
    rotate_delete_text: "Nothing uses it any more.", "旧密钥已不再使用。";
    rotate_done: "Done: the old key is deleted.", "完成：旧密钥已删除。";

    // Usage.
    usage_text: "What will be billed: calls, units and bytes, as your clusters reported them.", "计费依据：集群上报的调用次数、读写单元与流量。";
    download_csv: "Download CSV", "下载 CSV";
    range: "Time", "时间范围";
    range_24h: "Last 24 hours", "最近 24 小时";
    range_3d: "Last 3 days, by hour", "最近 3 天（按小时）";
    range_7d: "Last 7 days", "最近 7 天";
    range_30d: "Last 30 days", "最近 30 天";
    range_90d: "Last 90 days", "最近 90 天";
    all_keys: "All keys", "全部密钥";
    cluster: "Cluster", "集群";
    all_clusters: "All clusters", "全部集群";
    show: "Show", "查询";
    calls: "Calls", "调用次数";
    ok: "ok", "成功";
    refused: "refused", "被服务拒绝";
    failed: "failed", "失败";
    read_units: "Read units", "读单元";
    write_units: "Write units", "写单元";
    traffic: "Bytes", "流量";
    bytes_in: "in", "流入";
    bytes_out: "out", "流出";
    units: "Read and write units", "读写单元";
    calls_by_outcome: "Calls by outcome", "按结果的调用次数";
    calls_by_operation: "Calls by operation", "按操作的调用次数";
    other_operations: "others", "其他";
    by_operation: "By operation", "按操作";
    operation: "Operation", "操作";
    by_key: "By key", "按密钥";
    by_cluster: "By cluster", "按集群";
    no_calls: "No calls in this time.", "该时间段内没有调用。";
    as_table: "As a table", "以表格显示";
    beginning: "From", "起始时间";
    provisional: "provisional", "暂定";
    provisional_text: "The last bar is provisional: its time is not over yet.", "最后一根柱为暂定数据：该时段尚未结束。";
    chart_label: "The numbers are in the table below.", "具体数值见下方表格。";
    days_end: "Days end at midnight", "每日截止于零点，时区";

    // Clusters.
    clusters_text: "Where your programs call, and from which addresses they may.", "程序访问的地址，以及允许访问的来源。";
    no_clusters: "No cluster yet", "还没有集群";
    no_clusters_text: "Your operator sets up clusters.", "集群由运维人员创建。";
    endpoint: "Endpoint", "访问地址";
    hosts: "Host names", "主机名";
    cluster_id: "Cluster id", "集群 ID";
    allow_list: "Allowed addresses", "访问白名单";
    open_to_all: "every address", "不限来源";
    edit_allow_list: "Edit allowed addresses", "编辑访问白名单";
    allow_list_label: "Addresses and networks, one per line", "地址或网段，每行一个";
    allow_list_hint: "Empty: every address may call. A tighter list is in force on every gateway once it is saved.", "留空表示不限来源。保存后立即在所有网关生效。";
    quick_start: "Quick start", "快速开始";

    // Audit log.
    audit_text: "Every change to this account, who made it and from where. Entries cannot be changed.", "账户的每一次变更、操作者与来源。记录不可篡改。";
    whole_audit_text: "Every change to every account. Entries are chained, so that none can be changed unseen.", "所有账户的变更记录，逐条链接，任何篡改都会被发现。";
    when: "When", "时间";
    what: "What", "操作";
    subject: "Object", "对象";
    who: "Who", "操作者";
    origin: "From", "来源";
    newest: "Newest", "最新";
    older: "Older", "更早";

    // Account.
    profile: "Profile", "基本信息";
    account_name: "Name", "账户名称";
    role: "Role", "角色";
    root_user: "Root user", "主账号";
    member_long: "Member, read-only", "成员（只读）";
    account_id: "Account id", "账户 ID";
    suspended: "Suspended", "已停用";
    verified: "Verified", "已认证";
    unverified: "Not verified", "未认证";
    security: "Security", "安全";
    password_text: "Changing it ends all your other sessions.", "修改后其他会话将全部结束。";
    change_password: "Change password", "修改密码";
    authenticator: "Authenticator", "验证器";
    authenticator_text: "An app that shows the codes for viewing and deleting keys.", "用于查看和删除密钥时的动态验证码。";
    replace_authenticator: "Replace authenticator", "更换验证器";
    recovery_codes: "Recovery codes", "恢复码";
    recovery_text: "Ten codes, each good once, for when the authenticator is lost.", "十个一次性代码，在验证器丢失时使用。";
    new_recovery_codes: "Make new codes", "生成新的恢复码";
    members: "Members", "成员";
    add_member: "Add member", "添加成员";
    members_text: "They see the masked keys and the usage, and can change nothing.", "成员可以查看脱敏的密钥与用量，不能做任何修改。";
    no_members: "Nobody yet.", "还没有成员。";
    added: "Added", "添加于";
    remove: "Remove", "移除";
    sessions: "Active sessions", "活动会话";
    end_others: "End all others", "结束其他会话";
    this_session: "this one", "当前会话";
    signed_in: "Signed in", "登录于";
    last_seen: "last seen", "最近活动";
    ends: "ends", "结束于";
    present_password: "Current password", "当前密码";
    new_password: "New password", "新密码";
    repeat_password: "New password again", "再次输入新密码";
    password_changed: "Your password is changed. All your other sessions have ended.", "密码已修改，其他会话均已结束。";
    proceed: "Continue", "继续";
    totp_begin_text: "First a code of the authenticator you have now.", "请先输入当前验证器的动态码。";
    totp_scan_text: "Scan this with the new authenticator, then type the code it shows.", "使用新的验证器扫描二维码，然后输入显示的动态码。";
    qr_label: "QR code of the new authenticator; the secret stands below as text", "新验证器的二维码，下方为文本密钥";
    totp_by_hand: "Or type the secret by hand:", "或手动输入密钥：";
    totp_new_code: "Code of the new authenticator", "新验证器的动态码";
    totp_replaced: "The new authenticator is in force. All your other sessions have ended.", "新的验证器已生效，其他会话均已结束。";
    recovery_begin_text: "New codes replace those there are.", "新的恢复码将替换现有的恢复码。";
    recovery_once: "Keep them in a safe place. They are not shown again.", "请妥善保存，恢复码不会再次显示。";
    copy_all: "Copy all", "全部复制";
    first_password: "First password", "初始密码";
    first_password_hint: "At least 8 characters. Hand it over on a safe way; the member can change it.", "至少 8 个字符。请通过安全的方式告知，成员可自行修改。";
    remove_member: "Remove member", "移除成员";
    remove_member_text: "loses access at once, in all sessions.", "将立即失去访问权限，所有会话随之结束。";

    // The operator.
    accounts_text: "Verification, limits, and whether an account's keys are served.", "实名认证、限额以及账户密钥是否可用。";
    no_accounts: "No accounts yet", "还没有账户";
    account: "Account", "账户";
    limits: "Limits", "限额";
    active_keys: "active keys", "个启用密钥";
    per_day: "created per day", "个每日创建";
    more: "More", "更多";
    verify: "Verify", "通过认证";
    verify_text: "You have checked who this is. The account may create keys then.", "确认已核实身份，账户即可创建密钥。";
    unverify: "Take back verification", "撤销认证";
    unverify_text: "The account can create no keys then. Those it has go on working.", "账户将不能再创建密钥，已有密钥继续有效。";
    suspend: "Suspend", "停用";
    suspend_text: "No gateway admits a call of this account then. Its keys stay.", "所有网关都将拒绝该账户的调用，密钥保留。";
    resume: "Resume", "恢复";
    resume_text: "The account's keys are served again, on every gateway.", "账户的密钥将在所有网关恢复可用。";
    change_account: "Change account", "变更账户";
    billing_title: "Billing windows", "计费窗口";
    billing_text: "What will be billed for each hour of the last day, over all accounts. An hour that is not final may still change.", "最近一天每小时的计费数据（全部账户）。未定稿的小时仍可能变化。";
    accounts_counted: "Accounts", "账户数";
    hour: "Hour", "小时";
    window_open: "open", "进行中";
    window_draining: "draining", "收集中";
    window_final: "final", "已定稿";
    waits_for: "waits for {0}", "等待 {0}";
    lost_usage_of: "without {0}, which was given up", "不含已放弃的 {0}";
    gateways_text: "Who serves calls, and whether each has learnt of every change.", "正在服务的网关，以及是否已获知全部变更。";
    no_gateways: "No gateway is registered.", "没有已注册的网关。";
    all_current: "Revocation is healthy: every gateway has a good lease and every change.", "吊销机制正常：所有网关租约有效且已获知全部变更。";
    some_behind: "{0} of {1} gateways are behind or without a lease. Deletes wait for them, or for the end of their leases.", "{1} 个网关中有 {0} 个落后或租约失效，删除操作会等待其确认或租约到期。";
    gateway: "Gateway", "网关";
    lease: "Lease", "租约";
    lease_good: "good", "有效";
    lease_lapsed: "lapsed", "失效";
    revision: "Revision", "修订号";
    behind: "Changes behind", "落后变更数";
    heard: "Last heard", "最近心跳";
    version: "Version", "版本";
}
