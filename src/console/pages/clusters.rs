//! Clusters: where they are, who may reach them, and the first call.

use maud::{Markup, html};

use super::snippets;
use crate::console::ask::Refused;
use crate::console::elements::{Clock, badge, cancel, copyable, dialog_head, failure, time};
use crate::console::facts::{Cluster, Items, Session};
use crate::console::shell::{self, Place, Whose};
use crate::console::text::Lang;
use crate::console::visit::Visit;

pub async fn page(visit: Visit) -> Result<Markup, Refused> {
    let lang = visit.lang;
    let session: Session = visit.api.get(&visit, "/v1/session").await?;
    let clusters: Items<Cluster> =
        visit.api.get(&visit, &format!("/v1/accounts/{}/clusters", session.account_id)).await?;
    let content = html! {
        div .head { div { h1 { (lang.nav_clusters()) } p .hint { (lang.clusters_text()) } } }
        @if clusters.items.is_empty() { div .empty.card { h2 { (lang.no_clusters()) } p .hint { (lang.no_clusters_text()) } } }
        @for cluster in &clusters.items { (shown(lang, &session, cluster)) }
        @if session.is_root() { (allow_list_dialog(lang)) }
    };
    Ok(shell::page(&visit, &Whose::User(&session), Place::Clusters, lang.nav_clusters(), &content))
}

fn shown(lang: Lang, session: &Session, cluster: &Cluster) -> Markup {
    let title = cluster.name.as_deref().or(cluster.hosts.first().map(String::as_str)).unwrap_or(&cluster.cluster_id);
    html! {
        section .card #(cluster.cluster_id) {
            h2 { (title) }
            dl .facts {
                dt { (lang.endpoint()) } dd { (copyable(lang, &cluster.endpoint)) }
                dt { (lang.hosts()) } dd { @for host in &cluster.hosts { code { (host) } " " } }
                dt { (lang.cluster_id()) } dd { code { (cluster.cluster_id) } }
                dt { (lang.created()) } dd { (time(&cluster.created_at, Clock::Day)) }
                dt { (lang.allow_list()) }
                dd {
                    @if cluster.allow_ips.is_empty() { (badge("neutral", lang.open_to_all())) } @else {
                        span .tags { @for ip in &cluster.allow_ips { code { (ip) } " " } }
                    }
                    @if session.is_root() {
                        " " button type="button" .quiet data-open="allow-list" data-cluster-id=(cluster.cluster_id) data-shown=(title)
                            data-ips=(cluster.allow_ips.join("\n")) aria-label={ (lang.edit_allow_list()) ": " (title) } { (lang.edit()) }
                    }
                }
            }
            h3 { (lang.quick_start()) }
            (snippets::tabs(lang, &cluster.cluster_id, &cluster.endpoint))
        }
    }
}

fn allow_list_dialog(lang: Lang) -> Markup {
    html! {
        dialog #allow-list aria-labelledby="allow-list-title" {
            (dialog_head(lang, "allow-list", lang.edit_allow_list()))
            p .subject { strong data-fill="shown" {} }
            form data-act="allow-list" method="post" {
                label for="allow-ips" { (lang.allow_list_label()) }
                textarea #allow-ips name="ips" rows="6" spellcheck="false" autocapitalize="off" autofocus placeholder="10.0.0.0/8\n203.0.113.7" aria-describedby="allow-ips-hint" {}
                p .hint #allow-ips-hint { (lang.allow_list_hint()) }
                (failure())
                p .actions { (cancel(lang)) button .primary type="submit" { (lang.save()) } }
            }
        }
    }
}
