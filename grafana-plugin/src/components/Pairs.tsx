import React, { useState } from 'react';
import { SelectableValue } from '@grafana/data';
import { Button, InlineField, Input, Select } from '@grafana/ui';

interface Props {
  label: string;
  value?: Record<string, string>;
  names: Array<SelectableValue<string>>;
  onChange: (value: Record<string, string> | undefined) => void;
}

/** A small list of name = value pairs: filters and segments. */
export function Pairs({ label, value, names, onChange }: Props) {
  const [name, setName] = useState<string>();
  const [text, setText] = useState('');
  const add = () => {
    if (name) {
      onChange({ ...value, [name]: text });
      setName(undefined);
      setText('');
    }
  };
  const drop = (gone: string) => {
    const rest = Object.fromEntries(Object.entries(value ?? {}).filter(([k]) => k !== gone));
    onChange(Object.keys(rest).length > 0 ? rest : undefined);
  };
  return (
    <InlineField label={label} labelWidth={12}>
      <div style={{ display: 'flex', gap: 4, flexWrap: 'wrap' }}>
        {Object.entries(value ?? {}).map(([k, v]) => (
          <Button key={k} variant="secondary" icon="times" tooltip="Remove" onClick={() => drop(k)}>
            {`${k} = ${v}`}
          </Button>
        ))}
        <Select aria-label={`${label} name`} width={18} options={names} allowCustomValue value={name ? { value: name, label: name } : null} placeholder="column" onChange={(v) => setName(v.value)} />
        <Input aria-label={`${label} value`} width={18} value={text} placeholder="value" onChange={(e) => setText(e.currentTarget.value)} onKeyDown={(e) => e.key === 'Enter' && add()} />
        <Button aria-label={`Add ${label.toLowerCase()}`} variant="secondary" icon="plus" onClick={add} disabled={!name} />
      </div>
    </InlineField>
  );
}
