import React, { FormEvent } from 'react';
import { DataSourcePluginOptionsEditorProps } from '@grafana/data';
import { DataSourceHttpSettings, FieldSet, InlineField, Input, SecretInput } from '@grafana/ui';
import { KedgeOptions, KedgeSecrets } from '../types';

type Props = DataSourcePluginOptionsEditorProps<KedgeOptions, KedgeSecrets>;

const LABEL = 20;
const WIDTH = 48;

/** Address, key and defaults of one Kedge; the key is kept by Grafana, encrypted. */
export function ConfigEditor({ options, onOptionsChange }: Props) {
  const json = options.jsonData;
  const set = (part: Partial<KedgeOptions>) => onOptionsChange({ ...options, jsonData: { ...json, ...part } });
  const value = (e: FormEvent<HTMLInputElement>) => e.currentTarget.value;
  const setKey = (apiKey: string, isSet: boolean) =>
    onOptionsChange({
      ...options,
      secureJsonFields: { ...options.secureJsonFields, apiKey: isSet },
      secureJsonData: { ...options.secureJsonData, apiKey },
    });
  return (
    <>
      <DataSourceHttpSettings
        defaultUrl="http://127.0.0.1:7070"
        dataSourceConfig={options}
        onChange={onOptionsChange}
        showAccessOptions={false}
      />
      <FieldSet label="Kedge">
        <InlineField label="API key" labelWidth={LABEL} tooltip="Created with: kedge keys create --role viewer. Not needed for a Kedge on loopback without authentication.">
          <SecretInput
            id="kedge-key"
            aria-label="API key"
            width={WIDTH}
            isConfigured={Boolean(options.secureJsonFields?.apiKey)}
            value={options.secureJsonData?.apiKey ?? ''}
            onChange={(e) => setKey(value(e), false)}
            onReset={() => setKey('', false)}
          />
        </InlineField>
        <InlineField label="Namespace" labelWidth={LABEL} tooltip="Asked when a query names none; empty means the key's own.">
          <Input aria-label="Namespace" width={WIDTH} value={json.namespace ?? ''} placeholder="default" onChange={(e: FormEvent<HTMLInputElement>) => set({ namespace: value(e) })} />
        </InlineField>
        <InlineField label="Query timeout" labelWidth={LABEL} tooltip="Deadline of one query in seconds; the others of the same dashboard are not held up.">
          <Input aria-label="Query timeout" width={WIDTH} type="number" min={1} suffix="s" placeholder="30" value={json.timeoutSeconds ?? ''} onChange={(e: FormEvent<HTMLInputElement>) => set({ timeoutSeconds: Number(value(e)) || undefined })} />
        </InlineField>
        <InlineField label="Row limit" labelWidth={LABEL} tooltip="Rows of one table at most; the panel says when it was cut.">
          <Input aria-label="Row limit" width={WIDTH} type="number" min={1} placeholder="10000" value={json.maxRows ?? ''} onChange={(e: FormEvent<HTMLInputElement>) => set({ maxRows: Number(value(e)) || undefined })} />
        </InlineField>
        <InlineField label="Trace link" labelWidth={LABEL} tooltip="Where a trace id leads. ${__value.raw} stands for the id.">
          <Input aria-label="Trace link" width={WIDTH} value={json.traceUrl ?? ''} placeholder="https://traces.example/trace/${__value.raw}" onChange={(e: FormEvent<HTMLInputElement>) => set({ traceUrl: value(e) })} />
        </InlineField>
      </FieldSet>
    </>
  );
}
